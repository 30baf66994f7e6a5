"""The console: what people see of a deployment in a browser, and do there; an agent's word for who may is the policy's."""
