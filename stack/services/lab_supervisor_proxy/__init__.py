"""The few Docker calls that the remediator makes, done on supervisord: for a lab whose services are processes."""
