//! Columns for a terminal.

use serde::Serialize;

use super::{CommandError, print, print_json};

/// Prints a listing: as JSON, or as a table.
pub(super) fn print_listing<T: Serialize>(
    json: bool,
    items: &[T],
    heading: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<(), CommandError> {
    match json {
        true => Ok(print_json(&items)?),
        false => {
            print_table(items, heading, row);
            Ok(())
        }
    }
}

/// Prints a row for each item under a heading.
pub(super) fn print_table<T>(items: &[T], heading: &[&str], row: impl Fn(&T) -> Vec<String>) {
    let rows: Vec<_> = items.iter().map(row).collect();
    print(&table(heading, &rows));
}

/// Rows under a heading, each column as wide as its widest cell.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> =
            cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(padded.join("  ").trim_end());
        out.push('\n');
    };
    line(&mut heading.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [vec!["telemetry".to_owned(), "4".to_owned()], vec!["ä".to_owned(), "12".to_owned()]];
        let expected = "TOPIC      PARTITIONS\ntelemetry  4\nä          12\n";
        assert_eq!(table(&["TOPIC", "PARTITIONS"], &rows), expected);
    }
}
