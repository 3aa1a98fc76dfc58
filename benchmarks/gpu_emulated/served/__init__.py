"""The rivals that a real tritonserver can run on a draw of the emulated GPU, in dilated time, beside virtual time."""
