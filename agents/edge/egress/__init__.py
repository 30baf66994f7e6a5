"""The exit: an agent that calls APIs outside, and alone holds their credentials."""
