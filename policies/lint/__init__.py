"""Which Rego is admitted: parsed, named, and refused where engines would answer otherwise."""
