"""What users write, parsed once: every pydantic model of the project is in this room."""
