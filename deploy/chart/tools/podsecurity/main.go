// Judges every pod of the manifests on standard input by Pod Security "restricted", with the API server's own rules.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// What is common to Pod and to whatever has a template of one.
type manifest struct {
	Kind     string            `json:"kind"`
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     struct {
		Template *corev1.PodTemplateSpec `json:"template"`
	} `json:"spec"`
}

func main() {
	pods, err := judge(os.Stdin)
	if err == nil && pods == 0 {
		err = errors.New("there is no pod in it")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%d pods are restricted\n", pods)
}

func judge(input io.Reader) (int, error) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return 0, err
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	text, err := io.ReadAll(input)
	if err != nil {
		return 0, err
	}
	documents := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	defer documents.Close()
	buffer := make([]byte, len(text)+1)
	pods := 0
	for {
		size, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return pods, nil
		}
		if err != nil {
			return 0, err
		}
		var found manifest
		var pod corev1.Pod
		if err := yaml.Unmarshal(buffer[:size], &found); err != nil {
			return 0, err
		}
		switch {
		case found.Kind == "Pod":
			if err := yaml.Unmarshal(buffer[:size], &pod); err != nil {
				return 0, err
			}
		case found.Spec.Template != nil:
			pod.ObjectMeta, pod.Spec = found.Spec.Template.ObjectMeta, found.Spec.Template.Spec
		default:
			continue
		}
		pods++
		verdict := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec))
		if !verdict.Allowed {
			return 0, fmt.Errorf("%s %s is not restricted: %s", found.Kind, found.Metadata.Name, verdict.ForbiddenDetail())
		}
	}
}
