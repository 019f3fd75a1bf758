"""The tabs of the page: each lays out its components and connects them to its handlers."""
