{{- /* Labels of every object. */ -}}
{{- define "weft.labels" -}}
app.kubernetes.io/name: weft-control-plane
app.kubernetes.io/part-of: weft
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- /* Labels by which the control plane's pods are found: these never change. */ -}}
{{- define "weft.selector" -}}
app.kubernetes.io/name: weft-control-plane
app.kubernetes.io/part-of: weft
{{- end }}
