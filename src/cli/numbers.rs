//! Whole numbers, as `bench` and `top` both show them.
//! # Invariants: none.
//! # Not here: units and columns (`bench`, `top`).

/// A number with a comma before every three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A figure as a count; less than 0 is 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the conversion saturates, and it was rounded before"
)]
pub(super) fn whole(figure: f64) -> u64 {
    figure.round() as u64
}
