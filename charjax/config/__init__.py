"""Everything a run can be told: fields, their checks, presets."""
