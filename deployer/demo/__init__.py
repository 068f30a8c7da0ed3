"""`fedspan demo`: the whole way in the sandbox, told in seven phases."""
