//! Columns of text, for people.
//!
//! Invariant: a column is as wide as its widest cell, and no line ends in spaces.

/// Lines of a table: the first row is its head.
pub(crate) fn render<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "pod"], ["long", "x"], ["ü", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(super::render(&rows), "a     pod\nlong  x\nü\n");
    }
}
