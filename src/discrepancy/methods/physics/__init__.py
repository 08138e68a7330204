"""Methods for physical systems: fields, molecules, differential equations."""
