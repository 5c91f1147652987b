"""The cluster's volumes as iSCSI targets: what there is, who serves it, and its addresses. docs/data-path.md."""
