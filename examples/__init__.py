"""Programs that use pimm and cream for more than classification."""
