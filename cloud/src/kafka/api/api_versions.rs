//! ApiVersions (18), versions 0-4.
//!
//! Answers the version table. A version that is not served is answered in version 0 with UNSUPPORTED_VERSION and the table;
//! the answer's header has version 0 always, since the client does not know yet what this broker speaks (KIP-35, KIP-511).
//! The client's software name and version are not checked. No features are announced.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use crate::kafka::versions::APIS;

pub(super) fn handle(request: &ApiVersionsRequest) -> ApiVersionsResponse {
    tracing::debug!(
        software = request.client_software_name.as_str(),
        version = request.client_software_version.as_str(),
        "client asks for API versions"
    );
    ApiVersionsResponse::default().with_api_keys(table())
}

pub(super) fn unsupported() -> ApiVersionsResponse {
    let code = ResponseError::UnsupportedVersion.code();
    ApiVersionsResponse::default().with_error_code(code).with_api_keys(table())
}

fn table() -> Vec<ApiVersion> {
    let entry = |api: &crate::kafka::versions::Api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.min)
            .with_max_version(api.max)
    };
    APIS.iter().map(entry).collect()
}
