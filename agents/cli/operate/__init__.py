"""Commands for operators: `sealbus doctor`, `streams`, `identity`, `notary`."""
