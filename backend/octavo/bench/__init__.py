"""Measurements behind ``octavo bench``: each module runs one kind of load and returns rows; none of it is imported when serving."""
