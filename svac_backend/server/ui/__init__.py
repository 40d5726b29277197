"""The pages at /ui, for the people who manage: projects, jobs, masks, corrections, training, versions, storage."""
