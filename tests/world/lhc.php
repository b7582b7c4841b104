<?php
// LHC's extension as far as its encoders go: each line of the input is a request, each line of the output its answer.
//
// A request: {"url", "endpoint" or "method", "credentials", "arguments", "key", "text", "escaping"}. `text` is in Base64,
// for it may be no text at all; it is the argument `key`. `escaping`: xmlrpc's option, null for none of its options.

function post(string $url, string $type, string $body): array
{
    $options = ['method' => 'POST', 'header' => "Content-Type: $type", 'content' => $body, 'ignore_errors' => true, 'timeout' => 5];
    $answer = file_get_contents($url, false, stream_context_create(['http' => $options]));
    return [(int) explode(' ', $http_response_header[0])[1], $answer];
}

while (($line = fgets(STDIN)) !== false) {
    $wanted = json_decode($line, true);
    $arguments = $wanted['arguments'];
    $arguments[$wanted['key']] = base64_decode($wanted['text']);
    if (isset($wanted['endpoint'])) {
        // false, and so an empty body, for what is no UTF-8
        $body = (string) json_encode($arguments + $wanted['credentials']);
        [$status, $answer] = post($wanted['url'] . $wanted['endpoint'], 'application/json', $body);
        $told = ['status' => $status, 'answer' => $answer];
    } else {
        $options = $wanted['escaping'] === null ? [] : ['encoding' => 'utf-8', 'escaping' => $wanted['escaping']];
        $body = xmlrpc_encode_request($wanted['method'], [$wanted['credentials'], $arguments], $options);
        [$status, $answer] = post($wanted['url'], 'text/xml', $body);
        $result = xmlrpc_decode($answer);
        $told = ['status' => $status, 'answer' => $result, 'fault' => !is_array($result) || xmlrpc_is_fault($result)];
    }
    echo json_encode($told, JSON_INVALID_UTF8_SUBSTITUTE), "\n";
}
