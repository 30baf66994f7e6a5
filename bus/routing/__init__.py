"""Routes of handlers, the stages of a delivery, retry schedules, and timers."""
