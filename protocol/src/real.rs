//! Floating point numbers as C prints them.
//!
//! Flux writes eventlogs and durations with printf, and others read, compare and hash that text.

/// `printf("%.*g")`: at most `precision` significant digits, no trailing zeros.
pub fn format_g(value: f64, precision: usize) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let precision = precision.max(1);
    let scientific = format!("{value:.*e}", precision - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let last_digit = i32::try_from(precision).unwrap_or(i32::MAX);
    if (-4..last_digit).contains(&exponent) {
        let decimals = usize::try_from(last_digit - 1 - exponent).unwrap_or_default();
        return trim_zeros(&format!("{value:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim_zeros(mantissa), exponent.unsigned_abs())
}

/// A JSON real as jansson writes it: 17 significant digits, and always recognizable as a real.
pub fn format_json(value: f64) -> String {
    let text = format_g(value, 17);
    match text.split_once('e') {
        None if text.contains('.') => text,
        None => text + ".0",
        Some((mantissa, exponent)) => {
            let digits = exponent.trim_start_matches(['+', '-']).trim_start_matches('0');
            let sign = if exponent.starts_with('-') { "-" } else { "" };
            format!("{mantissa}e{sign}{digits}")
        }
    }
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_print_as_printf_prints_them() {
        for (value, precision, text) in [
            (0.0, 6, "0"),
            (1.0, 17, "1"),
            (0.1, 17, "0.10000000000000001"),
            (1_795_361_680.752_91, 17, "1795361680.7529099"),
            (100_000.0, 6, "100000"),
            (1_000_000.0, 6, "1e+06"),
            (999_999.5, 6, "1e+06"),
            (0.0001, 6, "0.0001"),
            (0.00001, 6, "1e-05"),
            (115.740_740_7, 2, "1.2e+02"),
            (-2.5, 6, "-2.5"),
            (1e300, 3, "1e+300"),
        ] {
            assert_eq!(format_g(value, precision), text);
        }
    }

    #[test]
    fn json_reals_are_never_mistaken_for_integers() {
        assert_eq!(format_json(0.0), "0.0");
        assert_eq!(format_json(1e15), "1000000000000000.0");
        assert_eq!(format_json(1e17), "1e17");
        assert_eq!(format_json(1.5e-7), "1.4999999999999999e-7");
    }

    proptest! {
        #[test]
        fn seventeen_digits_give_the_same_number_back(value in prop::num::f64::NORMAL) {
            prop_assert_eq!(format_json(value).parse::<f64>().unwrap(), value);
        }
    }
}
