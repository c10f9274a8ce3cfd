"""Everything users write, parsed and validated once: all pydantic models of the project."""
