"""Routes of handlers, the stages of a delivery, retry policies, and timers."""
