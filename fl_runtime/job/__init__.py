"""What a job is: its description, its bundle, and the envelope that its submitter signs."""
