"""The SDK's side of the wire: channel, streams, retries and the errors they map to."""
