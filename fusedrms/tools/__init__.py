"""The command fusedrms and what it reads. Imports anything below; nothing imports it, so that `import fusedrms` loads no rich."""
