//! Rounds, medians, and the table that they are printed in.

use serde::Serialize;

/// One measured figure: several rounds, and what a bare loop did in the same run.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub name: String,
    pub unit: &'static str,
    pub rounds: Vec<f64>,
    /// The median of the rounds.
    pub median: f64,
    /// The bare loop's median, in the same unit.
    pub bare: Option<f64>,
    /// What the bare loop does.
    pub bare_name: Option<&'static str>,
    /// Anything that is needed to read the figure.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Figure {
    /// A figure of several rounds.
    pub fn new(name: impl Into<String>, unit: &'static str, rounds: Vec<f64>) -> Self {
        Self {
            name: name.into(),
            unit,
            median: median(&rounds),
            rounds,
            bare: None,
            bare_name: None,
            note: String::new(),
        }
    }

    /// Sets what it is compared with.
    pub fn beside(mut self, bare_name: &'static str, rounds: &[f64]) -> Self {
        self.bare = Some(median(rounds));
        self.bare_name = Some(bare_name);
        self
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.bare
            .filter(|bare| *bare > 0.0)
            .map(|bare| self.median / bare)
    }
}

/// The middle value; the mean of the two middle ones of an even number.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The value that the share `q` of all values does not exceed.
pub fn quantile(values: &mut [f64], q: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let at = ((values.len() - 1) as f64 * q).round() as usize;
    let (_, value, _) = values.select_nth_unstable_by(at, f64::total_cmp);
    *value
}

/// The figures as a Markdown table, which also reads well in a terminal.
pub fn table(figures: &[Figure]) -> String {
    let mut rows =
        vec![["figure", "median", "unit", "bare loop", "ratio", "rounds"].map(str::to_owned)];
    for figure in figures {
        let bare = match (figure.bare, figure.bare_name) {
            (Some(bare), Some(name)) => format!("{} ({name})", number(bare)),
            _ => String::new(),
        };
        rows.push([
            figure.name.clone(),
            number(figure.median),
            figure.unit.to_owned(),
            bare,
            figure
                .ratio()
                .map(|ratio| format!("{ratio:.2}"))
                .unwrap_or_default(),
            figure
                .rounds
                .iter()
                .map(|value| number(*value))
                .collect::<Vec<_>>()
                .join(" "),
        ]);
    }
    let widths: Vec<usize> = (0..6)
        .map(|n| {
            rows.iter()
                .map(|row| row[n].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &[String; 6]| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut out = line(&rows[0]) + &format!("|-{}-|\n", rule.join("-|-"));
    for row in &rows[1..] {
        out += &line(row);
    }
    for figure in figures.iter().filter(|figure| !figure.note.is_empty()) {
        out += &format!("\n{}: {}\n", figure.name, figure.note);
    }
    out
}

fn number(value: f64) -> String {
    if value >= 1000.0 {
        let digits = format!("{value:.0}");
        let mut out = String::new();
        for (n, digit) in digits.chars().enumerate() {
            if n > 0 && (digits.len() - n).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        out
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_numbers() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile(&mut [5.0, 1.0, 4.0, 2.0, 3.0], 0.5), 3.0);
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(0.25), "0.250");
    }
}
