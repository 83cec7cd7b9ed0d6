//! The pure part of function `shift`: the report as text and as a page.

mod chart;
pub mod page;
pub mod text;

#[cfg(test)]
mod sample;

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many bytes came for one that is kept.
fn reduction(report: &summary::report::Report) -> u64 {
    report.bytes_in / report.bytes_kept.max(1)
}
