"""A script: a ``Service`` as JSON on standard input -> the InferenceService as YAML, made of the KServe SDK's own objects.

A process of its own, because the SDK's protobuf descriptors cannot be loaded beside those of other clients.
"""

import sys

import msgspec
import yaml
from kserve import V1beta1InferenceService, V1beta1InferenceServiceSpec, V1beta1ModelFormat, V1beta1ModelSpec, V1beta1PredictorSpec
from kserve.api_client import ApiClient
from kubernetes.client import V1EnvVar, V1ObjectMeta

from octavo.deploy.service import Mode, Service

# As in k8s/values: what a pod has to end in, and what requests have of it.
GRACE_SECONDS, DRAIN_SECONDS = 60, 50
# Knative: the longest request, and how long a revision may take to be ready.
REQUEST_SECONDS, PROGRESS_DEADLINE = 300, "1260s"


def inference_service(service: Service) -> V1beta1InferenceService:
    """The object that a cluster with KServe takes."""
    knative = service.mode is Mode.KNATIVE
    annotations = {"serving.kserve.io/deploymentMode": service.mode.value}
    if knative:
        annotations["serving.knative.dev/progress-deadline"] = PROGRESS_DEADLINE
    model = V1beta1ModelSpec(
        model_format=V1beta1ModelFormat(name=service.model_format),
        protocol_version="grpc-v2" if knative else "v2",
        runtime=service.runtime,
        storage_uri=service.storage_uri,
        args=service.arguments or None,
        env=[V1EnvVar(name="DRAIN_SECONDS", value=str(DRAIN_SECONDS))],
    )
    # Knative takes neither, and ends a pod by its own clock.
    standard = {} if knative else {"automount_service_account_token": False, "termination_grace_period_seconds": GRACE_SECONDS}
    predictor = V1beta1PredictorSpec(
        min_replicas=1, max_replicas=1, model=model, timeout=REQUEST_SECONDS if knative else None, **standard
    )
    return V1beta1InferenceService(
        api_version="serving.kserve.io/v1beta1",
        kind="InferenceService",
        metadata=V1ObjectMeta(name=service.name, namespace=service.namespace, annotations=annotations),
        spec=V1beta1InferenceServiceSpec(predictor=predictor),
    )


def main() -> None:
    """Standard input to standard output."""
    service = msgspec.json.decode(sys.stdin.buffer.read(), type=Service)
    plain = ApiClient().sanitize_for_serialization(inference_service(service))
    plain["spec"]["predictor"]["model"].pop("name", None)  # the SDK's own default, an empty string
    print(yaml.safe_dump(plain, sort_keys=False), end="")


if __name__ == "__main__":
    main()
