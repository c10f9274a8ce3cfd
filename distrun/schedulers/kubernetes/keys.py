"""The keys that an object of Kubernetes has, to refuse a patch with an unknown one.

From the API of Kubernetes 1.37, JobSet v1alpha2 and TrainJob v1alpha1. What is nested deeper is not
listed, and left to the API server. tests/unit/schedulers/test_kubernetes_keys.py compares it with
their schemas.
"""

from __future__ import annotations

from collections.abc import Mapping

KEYS: Mapping[str, str] = {
    "Job": "apiVersion kind metadata:Meta spec:JobSpec status",
    "JobSpec": (
        "activeDeadlineSeconds backoffLimit backoffLimitPerIndex completionMode completions "
        "managedBy manualSelector maxFailedIndexes parallelism podFailurePolicy:PodFailurePolicy "
        "podReplacementPolicy scheduling selector successPolicy suspend template:PodTemplate "
        "ttlSecondsAfterFinished"
    ),
    "PodFailurePolicy": "rules:PodFailureRule",
    "PodFailureRule": "action onExitCodes onPodConditions",
    "PodTemplate": "metadata:Meta spec:PodSpec",
    "PodSpec": (
        "activeDeadlineSeconds affinity:Affinity automountServiceAccountToken "
        "containers:Container dnsConfig dnsPolicy enableServiceLinks ephemeralContainers "
        "evictionResponders hostAliases hostIPC hostNetwork hostPID hostUsers hostname "
        "hostnameOverride imagePullSecrets initContainers:Container nodeName nodeSelector os "
        "overhead preemptionPolicy priority priorityClassName readinessGates resourceClaims "
        "resources restartPolicy runtimeClassName schedulerName schedulingGates schedulingGroup "
        "securityContext:PodSecurity serviceAccount serviceAccountName setHostnameAsFQDN "
        "shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations:Toleration "
        "topologySpreadConstraints volumes:Volume"
    ),
    "PodSecurity": (
        "appArmorProfile fsGroup fsGroupChangePolicy runAsGroup runAsNonRoot runAsUser "
        "seLinuxChangePolicy seLinuxOptions seccompProfile supplementalGroups "
        "supplementalGroupsPolicy sysctls windowsOptions"
    ),
    "Toleration": "effect key operator tolerationSeconds value",
    "Affinity": "nodeAffinity podAffinity podAntiAffinity",
    "Container": (
        "args command env:EnvVar envFrom image imagePullPolicy lifecycle livenessProbe name ports "
        "readinessProbe resizePolicy resources:Resources restartPolicy restartPolicyRules "
        "securityContext:Security startupProbe stdin stdinOnce terminationMessagePath "
        "terminationMessagePolicy tty volumeDevices volumeMounts:VolumeMount workingDir"
    ),
    "EnvVar": "name value valueFrom",
    "Resources": "claims limits requests",
    "Security": (
        "allowPrivilegeEscalation appArmorProfile capabilities privileged procMount "
        "readOnlyRootFilesystem runAsGroup runAsNonRoot runAsUser seLinuxOptions seccompProfile "
        "windowsOptions"
    ),
    "VolumeMount": (
        "bindMountOptions mountPath mountPropagation name readOnly recursiveReadOnly subPath "
        "subPathExpr"
    ),
    "Volume": (
        "awsElasticBlockStore azureDisk azureFile cephfs cinder configMap csi downwardAPI "
        "emptyDir:EmptyDir ephemeral fc flexVolume flocker gcePersistentDisk gitRepo glusterfs "
        "hostPath image iscsi name nfs persistentVolumeClaim photonPersistentDisk portworxVolume "
        "projected quobyte rbd scaleIO secret storageos vsphereVolume"
    ),
    "EmptyDir": "medium mode sizeLimit",
    "Meta": (
        "annotations creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers "
        "generateName generation labels managedFields name namespace ownerReferences "
        "resourceVersion selfLink uid"
    ),
    "Service": "apiVersion kind metadata:Meta spec:ServiceSpec status",
    "ServiceSpec": (
        "allocateLoadBalancerNodePorts clusterIP clusterIPs externalIPs externalName "
        "externalTrafficPolicy healthCheckNodePort internalTrafficPolicy ipFamilies "
        "ipFamilyPolicy loadBalancerClass loadBalancerIP loadBalancerSourceRanges ports "
        "publishNotReadyAddresses selector sessionAffinity sessionAffinityConfig "
        "trafficDistribution type"
    ),
    "ConfigMap": "apiVersion binaryData data immutable kind metadata:Meta",
    "Secret": "apiVersion data immutable kind metadata:Meta stringData type",
    "NetworkPolicy": "apiVersion kind metadata:Meta spec:NetworkPolicySpec",
    "NetworkPolicySpec": "egress ingress podSelector policyTypes",
    "JobSet": "apiVersion kind metadata:Meta spec:JobSetSpec status",
    "JobSetSpec": (
        "coordinator failurePolicy:JobSetFailurePolicy managedBy network:JobSetNetwork "
        "replicatedJobs:ReplicatedJob startupPolicy successPolicy suspend ttlSecondsAfterFinished "
        "volumeClaimPolicies"
    ),
    "JobSetNetwork": "enableDNSHostnames publishNotReadyAddresses subdomain",
    "JobSetFailurePolicy": "maxRestarts restartStrategy rules",
    "ReplicatedJob": "dependsOn groupName name replicas template:JobTemplate",
    "JobTemplate": "metadata:Meta spec:JobSpec",
    "TrainJob": "apiVersion kind metadata:Meta spec:TrainJobSpec status",
    "TrainJobSpec": (
        "activeDeadlineSeconds initializer managedBy runtimePatches:RuntimePatch "
        "runtimeRef:RuntimeRef suspend trainer:Trainer"
    ),
    "RuntimeRef": "apiGroup kind name",
    "Trainer": "args command env:EnvVar image numNodes numProcPerNode resourcesPerNode:Resources",
    "RuntimePatch": "manager time trainingRuntimeSpec:RuntimeSpec",
    "RuntimeSpec": "template:RuntimeTemplate",
    "RuntimeTemplate": "metadata:Meta spec:RuntimeJobSet",
    "RuntimeJobSet": "replicatedJobs:RuntimeJob",
    "RuntimeJob": "name template:RuntimeJobTemplate",
    "RuntimeJobTemplate": "metadata:Meta spec:RuntimeJobSpec",
    "RuntimeJobSpec": "template:RuntimePodTemplate",
    "RuntimePodTemplate": "metadata:Meta spec:RuntimePod",
    "RuntimePod": (
        "affinity:Affinity containers:RuntimeContainer imagePullSecrets "
        "initContainers:RuntimeContainer nodeSelector schedulingGates securityContext:PodSecurity "
        "serviceAccountName terminationGracePeriodSeconds tolerations:Toleration volumes:Volume"
    ),
    "RuntimeContainer": "env:EnvVar name securityContext:Security volumeMounts:VolumeMount",
}
"""Type -> its keys; `key:Type` where the keys of the value, or of each entry of it, are known."""
