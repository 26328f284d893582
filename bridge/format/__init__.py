"""The safetensors format: header, index, specs. Knows bytes and JSON, no files and no weights."""
