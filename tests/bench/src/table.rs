//! Tables: what every benchmark gives back, printed for people or as JSON. Owns medians and formatting, measures nothing.

use serde_json::{Value, json};

/// One cell.
#[derive(Clone, Debug)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A number, and how many digits after the point people are shown.
    Number(f64, usize),
    /// Nothing to say.
    Blank,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

/// A number with so many digits after the point; blank if it is none.
pub fn number(value: f64, digits: usize) -> Cell {
    if value.is_finite() { Cell::Number(value, digits) } else { Cell::Blank }
}

impl Cell {
    fn shown(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Number(value, 0) => grouped(value.round()),
            Cell::Number(value, digits) => format!("{value:.digits$}"),
            Cell::Blank => String::new(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Cell::Text(text) => json!(text),
            Cell::Number(value, _) => json!(value),
            Cell::Blank => Value::Null,
        }
    }
}

/// A table with a title, columns, rows, and what must be known to read it.
#[derive(Clone, Debug)]
pub struct Table {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    notes: Vec<String>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, columns: &[&'static str]) -> Table {
        Table { title: title.into(), columns: columns.to_vec(), rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a row; missing cells are blank.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut row: Vec<Cell> = cells.into_iter().collect();
        row.resize_with(self.columns.len(), || Cell::Blank);
        self.rows.push(row);
    }

    /// Adds a row for a peer that could not be measured, and why.
    pub fn skipped(&mut self, peer: &str, why: &str) {
        self.row([peer.into(), format!("skipped: {why}").into()]);
    }

    /// Adds a line below the table.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// As Markdown.
    pub fn text(&self) -> String {
        let shown: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(Cell::shown).collect()).collect();
        let width = |at: usize| {
            let cells = shown.iter().filter(|row| !is_skipped(row)).map(|row| row[at].chars().count());
            cells.chain([self.columns[at].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &[String], pad: char| {
            let padded = cells.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
                let gap: String =
                    std::iter::repeat_n(pad, width.saturating_sub(cell.chars().count())).collect();
                if at == 0 { format!("{cell}{gap}") } else { format!("{gap}{cell}") }
            });
            format!("| {} |", padded.collect::<Vec<_>>().join(" | "))
        };
        let mut out = format!("## {}\n\n", self.title);
        let names: Vec<String> = self.columns.iter().map(|name| (*name).to_owned()).collect();
        let rules: Vec<String> = widths.iter().enumerate().map(|(at, width)| rule(at, *width)).collect();
        for cells in [&names, &rules].into_iter().chain(&shown) {
            out.push_str(&line(cells, ' '));
            out.push('\n');
        }
        for note in &self.notes {
            out.push_str(&format!("\n{note}\n"));
        }
        out
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| row.iter().map(Cell::json).collect::<Value>());
        json!({
            "title": self.title,
            "columns": self.columns,
            "rows": rows.collect::<Value>(),
            "notes": self.notes,
        })
    }
}

/// Words of a skipped row must not widen a column of numbers.
fn is_skipped(row: &[String]) -> bool {
    row.get(1).is_some_and(|cell| cell.starts_with("skipped: "))
}

fn rule(at: usize, width: usize) -> String {
    let dashes = "-".repeat(width.saturating_sub(1));
    if at == 0 { format!("{dashes}-") } else { format!("{dashes}:") }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0.0 { format!("-{out}") } else { out }
}

/// The middle of some values; not a number if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value below which a share of the values lies, by the nearest rank; not a number if there are none.
pub fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Smallest and largest of some values, as people are shown a spread.
pub fn spread(values: &[f64], digits: usize) -> Cell {
    let (low, high) = (quantile(values.iter().copied(), 0.0), quantile(values.iter().copied(), 1.0));
    if low.is_nan() {
        return Cell::Blank;
    }
    format!("{} to {}", number(low, digits).shown(), number(high, digits).shown()).into()
}

#[cfg(test)]
mod tests {
    use super::{Table, median, number, quantile, spread};

    #[test]
    fn the_middle_of_nothing_is_no_number_and_of_an_odd_count_is_one_of_them() {
        assert!(median([]).is_nan());
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((quantile([3.0, 1.0, 2.0], 1.0) - 3.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_table_prints_every_row_and_says_why_one_was_skipped() {
        let mut table = Table::new("speed", &["what", "per second", "from to"]);
        table.row(["ours".into(), number(1_234_567.0, 0), spread(&[1.0, 2.5], 1)]);
        table.skipped("theirs", "not installed");
        table.note("Two cores.");
        let text = table.text();
        for part in ["## speed", "1,234,567", "1.0 to 2.5", "skipped: not installed", "Two cores."] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert_eq!(table.json()["rows"][0][1], 1_234_567.0);
    }
}
