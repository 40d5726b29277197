"""The pages at /ui, for those who manage: projects, jobs, masks, corrections, training, versions, storage."""
