"""One module a command; each reads its options, calls the library, and returns what belongs on stdout."""
