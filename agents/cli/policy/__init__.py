"""`sealbus policy` and `sealbus deny`: test, build, sign, push, deny, and try policies on the past."""
