use super::*;

#[test]
fn digits_are_unpacked_as_the_server_packs_them() {
    let packed = |all: i32, fraction: i32| (all << 16) | (fraction & 0x7ff);
    assert_eq!(
        numeric_limit(packed(10, 2)),
        Some(Limit::Digits {
            all: 10,
            fraction: 2
        })
    );
    assert_eq!(numeric_limit(packed(3, -2)), None);
}
