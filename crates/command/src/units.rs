//! Sizes and times as people write them: `64MiB`, `30s`.

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

const TIME_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads a size: a whole number of bytes, or a number with a unit (`64MiB`, `1.5GB`).
pub fn parse_size(text: &str) -> Result<u64, String> {
    parse(text, "B", &SIZE_UNITS).ok_or_else(|| {
        format!("'{text}' is not a size: expected a number of bytes, or one with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB, such as 64MiB")
    })
}

/// Reads a time: a whole number of milliseconds, or a number with a unit (`30s`, `1.5h`).
pub fn parse_time_ms(text: &str) -> Result<u64, String> {
    parse(text, "ms", &TIME_UNITS).ok_or_else(|| {
        format!("'{text}' is not a time: expected a number of milliseconds, or one with ms, s, m, h or d, such as 30s")
    })
}

/// Writes a number of bytes for people.
pub fn size(bytes: u64) -> String {
    let (unit, scale) = match bytes {
        0..1024 => return format!("{bytes} B"),
        _ if bytes < 1 << 20 => ("KiB", 1u64 << 10),
        _ if bytes < 1 << 30 => ("MiB", 1 << 20),
        _ if bytes < 1 << 40 => ("GiB", 1 << 30),
        _ => ("TiB", 1 << 40),
    };
    if bytes.is_multiple_of(scale) {
        return format!("{} {unit}", bytes / scale);
    }
    format!("{:.1} {unit}", bytes as f64 / scale as f64)
}

/// Writes a number of seconds for people.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn parse(text: &str, default_unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start() {
        "" => default_unit,
        unit => unit,
    };
    let scale = units.iter().find(|(name, _)| *name == unit)?.1;
    let number = number.replace('_', "");
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale);
    }
    let (whole, part) = number.split_once('.')?;
    if scale == 1 || part.is_empty() || part.len() > 6 {
        return None;
    }
    let tenths = part.parse::<u64>().ok()?.checked_mul(scale)? / 10u64.pow(part.len() as u32);
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(scale)?
        .checked_add(tenths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("10KB", 10_000),
            ("1_000B", 1_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "MiB",
            "64mib",
            "-1",
            "1.5",
            "1.",
            "99999999TiB",
            "1 2MiB",
            "ten",
        ] {
            assert!(parse_size(bad).unwrap_err().contains("64MiB"), "{bad}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, ms) in [
            ("250", 250),
            ("250ms", 250),
            ("30s", 30_000),
            ("1.5h", 5_400_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(parse_time_ms(text), Ok(ms), "{text}");
        }
        for bad in ["", "s", "30 sec", "1e3", "MiB"] {
            assert!(parse_time_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_times_are_written_for_people() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(64 << 20), "64 MiB");
        assert_eq!(size(1_500_000), "1.4 MiB");
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(3_660), "1 h 1 min");
    }
}
