"""API keys: the token's format, its storage as a hash, its verification."""
