//! Durations and sizes as people write them: `90s`, `15m`, `1h`, `7d`; `500MiB`, `10GiB`.

const DURATIONS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
const SIZES: [(&str, u64); 4] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

fn parse(text: &str, units: &[(&str, u64)], example: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let factor = units.iter().find(|(name, _)| *name == unit);
    let value = match (number.parse::<u64>(), factor) {
        (Ok(number), Some((_, factor))) => number.checked_mul(*factor),
        _ => None,
    };
    match value {
        Some(value) if value > 0 => Ok(value),
        _ => {
            let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
            Err(format!(
                "expected a whole number and a unit ({}), for example \"{example}\", found \"{text}\"",
                names.join(", ")
            ))
        }
    }
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units
        .iter()
        .rev()
        .find(|(_, factor)| value.is_multiple_of(*factor))
        .unwrap_or(&units[0]);
    format!("{}{name}", value / factor)
}

pub(super) fn parse_seconds(text: &str) -> Result<u64, String> {
    parse(text, &DURATIONS, "1h")
}

pub(super) fn show_seconds(seconds: u64) -> String {
    show(seconds, &DURATIONS)
}

pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    parse(text, &SIZES, "10GiB")
}

pub(super) fn show_bytes(bytes: u64) -> String {
    show(bytes, &SIZES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["1s", "90s", "15m", "1h", "7d"] {
            assert_eq!(show_seconds(parse_seconds(text).unwrap()), text);
        }
        for text in ["1KiB", "500MiB", "10GiB", "3TiB"] {
            assert_eq!(show_bytes(parse_bytes(text).unwrap()), text);
        }
        assert_eq!(parse_seconds("60m").unwrap(), 3600);
        for wrong in [
            "",
            "h",
            "0s",
            "1",
            "-1s",
            "1 year",
            "99999999999999999999d",
            "1.5h",
        ] {
            assert!(parse_seconds(wrong).unwrap_err().contains("1h"), "{wrong}");
        }
    }
}
