"""`sealbus policy` and `sealbus deny`: test, build, sign, push, deny, and try policies on recorded decisions."""
