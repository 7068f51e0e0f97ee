#pragma once

#include <string>

namespace ablate {

// Numbers as tables print them. Minus is U+2212; renderers that cannot show it replace it.

/// Decimals that leave two significant digits of a spread: 0.213 -> 2, 12.3 -> 0.
int decimals_for_spread(double spread);

/// Decimals that leave `digits` significant digits of a value (at most 9): 5.717, 4 -> 3.
int decimals_for_value(double value, int digits);

/// Fixed notation; scientific at 1e15 and above.
std::string format_fixed(double value, int decimals);

/// The same with a sign always: "+0.42", "−0.42".
std::string format_signed(double value, int decimals);

/// "71.32 ± 0.21": sd with two significant digits, mean to the same decimals.
std::string format_mean_sd(double mean, double sd);

/// "0.31", "0.031", "0.0031", "<0.001".
std::string format_p(double p);

/// Change against a reference in percent: "−14.0 %", "+42 %", "="; "" when the reference is 0.
std::string format_change(double value, double reference);

/// The shortest text that reads back as the same double, for machines (plain ASCII minus).
std::string full_precision(double value);

}  // namespace ablate
