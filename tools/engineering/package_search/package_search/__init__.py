"""Package search: what the Debian packages installed here say of themselves."""
