"""Unbalanced entropic transport: marginals held by penalties, so that mass may be created and destroyed at a price."""
