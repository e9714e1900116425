"""What people compose: rules, wrappers, chains, masks, parallel branches and recipes."""
