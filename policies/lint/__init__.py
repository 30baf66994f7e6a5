"""The lint of Rego: parsing, names, and refusal of forms that the engines would answer differently."""
