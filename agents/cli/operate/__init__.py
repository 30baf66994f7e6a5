"""Commands for operators: `sealbus doctor`, `streams`, `identity`, `notary`, `backup`, `restore`, `top`."""
