"""The console: pages in a browser that show operators who talks to whom, and why something was denied."""
