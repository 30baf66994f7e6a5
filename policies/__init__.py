"""Policy: what is asked, what is answered, the engines that answer, and the bundles they decide by."""
