"""Downloaded and local sets of indicators: parse, index, match."""
