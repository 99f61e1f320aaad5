//! The encoding in which JSON texts of the log and of stores are compared: whatever JSON says, it
//! takes; printing a document anew does not change it; other bytes do no harm.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onelog_fuzz::seeds::hand_out;
use onelog_mapping::{encode_json, numeric};
use serde_json::Value;

fn seeds() -> Vec<Vec<u8>> {
    [
        r#"{"b":[1,2.50,-0.0,1e3],"a":{"ü\u00e9\ud83d\ude00":null},"a":true}"#,
        r#"  [ "\"\\\/\b\f\n\r\t" , false , {} , [] ]  "#,
        "12345678901234567890.000100e-12",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        _ => false,
    }
}

fuzz_target!(init: hand_out(seeds), |data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(number) = numeric(text) {
        assert_eq!(numeric(&number).as_ref(), Some(&number));
    }
    let mut encoded = vec![7];
    let taken = encode_json(text, &mut encoded);
    assert!(taken || encoded == [7]);
    let Ok(document) = serde_json::from_str::<Value>(text) else {
        return;
    };
    // Numbers of more than a thousand digits have no canonical form.
    assert!(taken || text.len() > 1000 || text.contains(['e', 'E']), "{text}");
    if taken && !has_fraction(&document) {
        let mut again = vec![7];
        assert!(encode_json(&document.to_string(), &mut again));
        assert_eq!(encoded, again, "{text}");
    }
});
